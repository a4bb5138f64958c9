"""The HTTP API: routes, schemas, the OpenAPI document."""
