// For 1 to 16 pictures: columns, rows, and how many pictures fill four cells.
const SHAPES = [
  [1, 1, 0], [2, 1, 0], [3, 2, 1], [2, 2, 0], [4, 2, 1], [3, 2, 0], [4, 4, 3], [4, 2, 0],
  [3, 3, 0], [4, 4, 2], [5, 4, 3], [4, 3, 0], [4, 4, 1], [5, 4, 2], [5, 3, 0], [4, 4, 0],
];

/** Lays out square tiles in a grid without empty cells; the first ones may be larger. */
export function layOut(grid) {
  const tiles = [...grid.children];
  const [columns, rows, large] = SHAPES[tiles.length - 1] ?? SHAPES[0];
  grid.style.setProperty("--columns", columns);
  grid.style.setProperty("--rows", rows);
  for (const [i, tile] of tiles.entries()) tile.classList.toggle("large", i < large);
}
