// Labels of the kinds that the page knows; others have their names.
const WORDS = {
  txt2img: { verb: "Draw", filter: "Pictures" },
  img2txt: { verb: "Describe", filter: "Captions" },
};

export const KNOWN = Object.keys(WORDS);

export const verbOf = (kind) => WORDS[kind]?.verb ?? kind;

export const filterOf = (kind) => WORDS[kind]?.filter ?? kind;

/** Returns the kinds that the page knows, then the others. */
export const inOrder = (kinds) => [...new Set([...KNOWN, ...kinds])];
