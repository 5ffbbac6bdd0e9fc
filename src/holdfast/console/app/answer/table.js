// A table as it grows: a row is drawn once.

const LONG_ROW = 2000;
/** So many rows stand in a part of their own, and after the first part columns keep their widths. */
const PART_ROWS = 40;

/** The head once, the rows one after the other. */
export class TableView {
  constructor(prose, head) {
    this.prose = prose;
    this.source = head; // the head, then what is not drawn yet
    this.head = "";
  }

  add(text) {
    this.source += text;
  }

  draw(rest) {
    if (!this.head && !this.begin()) return;
    const end = this.source.lastIndexOf("\n") + 1;
    this.last?.remove();
    for (const row of this.rows(this.source.slice(0, end))) {
      if (this.body.rows.length >= PART_ROWS) this.next();
      this.body.append(row);
    }
    this.source = this.source.slice(end);
    const open = this.source + rest;
    [this.last] = open.length < LONG_ROW ? this.rows(open) : [];
    if (this.last) this.body.append(this.last);
  }

  /** Begin another part, so that a new row does not lay out all of them. */
  next() {
    const [table] = this.node.children;
    if (table.tBodies.length === 1) keepColumns(table);
    this.body = table.createTBody();
  }

  /** Draw the head as soon as the line below it is there. */
  begin() {
    const [head, delimiters, ...rows] = this.source.split("\n");
    if (!rows.length) return false;
    this.head = `${head}\n${delimiters}\n`;
    this.source = rows.join("\n");
    this.node = this.prose.markdown.blocks(this.head).firstElementChild;
    this.body = this.node.querySelector("tbody");
    this.prose.node.append(this.node);
    return Boolean(this.body);
  }

  rows(lines) {
    if (!lines.trim()) return [];
    return this.prose.markdown.blocks(this.head + lines).querySelectorAll("tbody > tr");
  }

  close() {
    this.add("\n");
    this.draw("");
  }
}

/** Let the columns be as wide as they are now, whatever comes. */
function keepColumns(table) {
  const { offsetWidth: width, parentNode } = table;
  const widths = [...table.rows[0].cells].map((cell) => cell.offsetWidth);
  if (!width) return; // it is not to be seen
  widths.forEach((part, at) => (table.rows[0].cells[at].style.width = `${(100 * part) / width}%`));
  if (width > parentNode.clientWidth) table.style.minWidth = `${width}px`;
  table.style.tableLayout = "fixed";
}
