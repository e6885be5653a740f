/** What outlives a reload of this tab. A browser may refuse to keep anything: then nothing does. */
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
      console.warn(error); // its room is full
    }
  },
};
