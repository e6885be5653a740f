import { key } from "./api.js";

/** The API key that the gallery keeps in this tab is used here, too. */
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
