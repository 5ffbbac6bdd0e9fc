// Text fields that grow with their lines, where the browser does not do it by itself.

const GROWS = CSS.supports("field-sizing", "content");

export function grow(field) {
  if (GROWS) return;
  field.style.height = "auto";
  field.style.height = `${field.scrollHeight}px`;
}
