import { key } from "./api.js";

/** Uses the gallery's API key of this tab. */
function authorize() {
  if (key.get()) ui.preauthorizeApiKey("HTTPBearer", key.get());
}

const ui = SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#docs",
  deepLinking: true,
  docExpansion: "list",
  validatorUrl: null,
  onComplete: authorize,
});
