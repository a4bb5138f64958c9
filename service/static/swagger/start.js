// Swagger UI in the colours that the system asks for, on the document of this very service.

const dark = matchMedia("(prefers-color-scheme: dark)");
const follow = () => document.documentElement.classList.toggle("dark-mode", dark.matches);
dark.addEventListener("change", follow);
follow();

SwaggerUIBundle({
  url: "openapi.json",
  domNode: document.getElementById("swagger-ui"),
  deepLinking: true,
  displayRequestDuration: true,
  validatorUrl: null, // else another host would be asked for its opinion of the document
});
