"""The Open Inference Protocol v2: routes, schemas, tensor codec."""
