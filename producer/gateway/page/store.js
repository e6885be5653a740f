/** Values kept over a reload of this tab; lost if the browser refuses to store them. */
export const store = {
  get(name, otherwise) {
    try {
      return JSON.parse(sessionStorage.getItem(`crossmodal-${name}`)) ?? otherwise;
    } catch {
      return otherwise;
    }
  },
  set(name, value) {
    try {
      sessionStorage.setItem(`crossmodal-${name}`, JSON.stringify(value));
    } catch (error) {
      console.warn(error); // the quota is exceeded
    }
  },
};
