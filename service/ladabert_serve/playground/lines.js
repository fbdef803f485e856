// Many texts at once: lines to inputs, answers to a table and to CSV.

// Return the texts of pasted lines, each with the second text where a tab separates two.
export function readLines(pasted) {
  const lines = pasted.split(/\r?\n/).filter((line) => line.trim());
  return lines.map((line) => {
    const [text, ...rest] = line.split("\t");
    return rest.length ? { text, text_pair: rest.join("\t") } : { text };
  });
}

// Return the header and the rows of the answers: `answers` has, by model, a prediction for each input.
export function tabulate(inputs, answers) {
  const hasPairs = inputs.some((input) => "text_pair" in input);
  const models = [...answers.keys()];
  const header = [
    "text",
    ...(hasPairs ? ["text_pair"] : []),
    ...models.flatMap((model) => [`${model}.label`, `${model}.score`]),
  ];
  const rows = inputs.map(({ text, text_pair: second = "" }, index) => [
    text,
    ...(hasPairs ? [second] : []),
    ...models.flatMap((model) => [answers.get(model)[index].label, answers.get(model)[index].score]),
  ]);
  return [header, ...rows];
}

// Return rows as CSV (RFC 4180).
export function toCsv(rows) {
  const quoted = (cell) => (/[",\r\n]/.test(cell) ? `"${String(cell).replaceAll('"', '""')}"` : String(cell));
  return rows.map((row) => `${row.map(quoted).join(",")}\r\n`).join("");
}

// Show the answers in a table: a line for each input, a column for each model.
export function fillTable(table, inputs, answers) {
  const cell = (name, text, className = "") => Object.assign(document.createElement(name), { textContent: text, className });
  const rowOf = (cells) => {
    const row = document.createElement("tr");
    row.append(...cells);
    return row;
  };
  const columns = ["Text", ...answers.keys()].map((name) => Object.assign(cell("th", name), { scope: "col" }));
  table.tHead.replaceChildren(rowOf(columns));
  const rows = inputs.map((input, index) => {
    const predictions = [...answers.values()].map((predicted) => {
      const { label, score } = predicted[index];
      const shown = cell("td", `${label} `);
      shown.append(cell("small", score.toFixed(3)));
      return shown;
    });
    return rowOf([cell("td", Object.values(input).join("\n"), "text"), ...predictions]);
  });
  table.tBodies[0].replaceChildren(...rows);
}

// Let the browser save a text as a file.
export function save(name, type, text) {
  const url = URL.createObjectURL(new Blob([text], { type }));
  Object.assign(document.createElement("a"), { href: url, download: name }).click();
  URL.revokeObjectURL(url);
}
