// Names the cell of a heat map under the pointer.
(() => {
  const { units } = JSON.parse(document.getElementById("data").textContent);
  const cells = new Map(units.expert.map((expert, i) => [`${units.block[i]} ${expert}`, i]));
  const shown = (x) => (x === null ? "NaN" : String(Number(x.toPrecision(4))));
  for (const map of document.querySelectorAll("svg.heat")) {
    const [left, top, width, height] = map.dataset.grid.split(" ").map(Number);
    const rows = map.dataset.rows.split(" ");
    const line = map.closest("figure").querySelector("output");
    const read = (event) => {
      const box = map.getBoundingClientRect();
      const scale = map.viewBox.baseVal.width / box.width;
      const expert = Math.floor(((event.clientX - box.left) * scale - left) / width);
      const block = rows[Math.floor(((event.clientY - box.top) * scale - top) / height)];
      const i = cells.get(`${block} ${expert}`);
      if (i === undefined) return;
      const before = units.loss_before[i];
      const after = units.loss_after[i];
      const ratio = before > 0 ? ` (${shown(after / before)})` : "";
      line.textContent =
        `Block ${block}, expert ${expert}: ${units.tokens[i].toLocaleString("en")} tokens, ` +
        `error ${shown(before)} before, ${shown(after)} after${ratio}` +
        (units.fallback[i] ? `; ${units.fallback[i]}` : "");
    };
    map.addEventListener("pointermove", read);
    map.addEventListener("pointerdown", read);
  }
})();
