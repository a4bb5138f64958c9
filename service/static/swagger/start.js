// Start Swagger UI with this service's OpenAPI document, in the system's colour scheme.

const dark = matchMedia("(prefers-color-scheme: dark)");
const applyScheme = () => document.documentElement.classList.toggle("dark-mode", dark.matches);
dark.addEventListener("change", applyScheme);
applyScheme();

SwaggerUIBundle({
  url: "openapi.json",
  domNode: document.getElementById("swagger-ui"),
  deepLinking: true,
  displayRequestDuration: true,
  validatorUrl: null, // no requests to Swagger's online validator
});
