// An answer's text with its marks, taken piece by piece.

const NONCHARACTERS = /[\uFDD0-\uFDD2\r]/g;

/** A text in which code points are counted as it grows. */
export class MarkedText {
  constructor(markdown) {
    this.markdown = markdown;
    this.at = 0; // how much has been taken, in UTF-16
    this.points = 0; // the same in code points, which marks count
    this.mark = 0; // which of the marks is the next
  }

  /** More of the text, with numbers in place of the marks. */
  take(text, marks, limit) {
    let out = "";
    const end = this.end(text, Math.min(this.at + limit, text.length));
    while (this.at < end) {
      const next = this.next(marks);
      if (!next) {
        out += this.until(text, end);
        break;
      }
      out += this.until(text, end, next[0]);
      if (this.points < next[0]) break;
      const label = this.until(text, text.length, next[1]);
      const isMark = this.points === next[1] && !out.endsWith("\\"); // what is escaped is text
      out += isMark ? this.markdown.mark(next[2], label) : label;
      this.mark += 1;
    }
    return out;
  }

  /** The next mark that makes sense. */
  next(marks) {
    for (; this.mark < marks.length; this.mark += 1) {
      const [start, end] = marks[this.mark];
      if (start >= this.points && end > start) return marks[this.mark];
    }
    return undefined;
  }

  /** A piece does not end between the halves of a character. */
  end(text, end) {
    return end < text.length && /[\uDC00-\uDFFF]/.test(text[end]) ? end - 1 : end;
  }

  until(text, end, points = Infinity) {
    const start = this.at;
    while (this.at < end && this.points < points) {
      this.at += text.codePointAt(this.at) > 0xffff ? 2 : 1;
      this.points += 1;
    }
    return text.slice(start, this.at).replace(NONCHARACTERS, "");
  }
}
