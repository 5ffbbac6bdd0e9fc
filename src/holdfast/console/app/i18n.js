// English and Chinese, as the browser asks for.

export const CHINESE = /^zh\b/i.test(navigator.language);

const INDEX = CHINESE ? 1 : 0;

/** A function that says the words of a table of `key: [english, chinese]`; `{}` takes the values. */
export function speak(words) {
  return (key, ...values) => {
    const said = words[key]?.[INDEX] ?? String(key);
    return values.length ? said.replace(/\{\}/g, () => String(values.shift() ?? "")) : said;
  };
}
