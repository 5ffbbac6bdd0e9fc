// Make nodes look like others and leave alone what does: the reader's selection and focus stay, and
// what is drawn anew of a text that grows is its end.

/** Make the children of `host` from `first` on look like `nodes`. */
export function morph(host, first, nodes) {
  let at = first;
  for (const wanted of nodes) {
    const found = host.childNodes[at];
    if (!found) host.append(wanted);
    else if (!found.isEqualNode(wanted)) adapt(found, wanted);
    at += 1;
  }
  while (host.childNodes.length > at) host.lastChild.remove();
}

function adapt(found, wanted) {
  if (found.nodeType === Node.TEXT_NODE && wanted.nodeType === Node.TEXT_NODE) grow(found, wanted.data);
  else if (isSameShell(found, wanted)) morph(found, 0, [...wanted.childNodes]);
  else found.replaceWith(wanted);
}

function grow(node, text) {
  if (text.startsWith(node.data)) node.appendData(text.slice(node.data.length));
  else node.data = text;
}

const isSameShell = (one, other) =>
  one.nodeName === other.nodeName && one.cloneNode(false).isEqualNode(other.cloneNode(false));
