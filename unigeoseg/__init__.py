"""The UniGeoSeg model and its mathematics in plain PyTorch: no Ray, no MLflow."""
