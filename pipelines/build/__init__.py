"""Building a GeoSeg store from a source: tile, standardise, split into regions, filter, instruct, write."""
