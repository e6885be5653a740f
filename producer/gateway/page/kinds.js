// How the page calls kinds that it knows; others are called by their names.
const WORDS = {
  txt2img: { verb: "Draw", filter: "Pictures" },
  img2txt: { verb: "Describe", filter: "Captions" },
};

export const KNOWN = Object.keys(WORDS);

export const verbOf = (kind) => WORDS[kind]?.verb ?? kind;

export const filterOf = (kind) => WORDS[kind]?.filter ?? kind;

/** Those that the page knows first, then the others. */
export const inOrder = (kinds) => [...new Set([...KNOWN, ...kinds])];
