"""Instructions over whole rasters: windows, blocks, polygons, layers that open in a GIS."""
