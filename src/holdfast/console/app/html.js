// Preact with htm: components as tagged templates, no build step.

import htm from "../vendor/htm.js";
import { Component, h } from "../vendor/preact.js";

export { Component, Fragment, createPortal, createRef, render } from "../vendor/preact.js";
export * from "../vendor/hooks.js";

export const html = htm.bind(h);

/** A component that is drawn again only when one of its properties is another one. */
export function pure(draw) {
  return class extends Component {
    shouldComponentUpdate(next) {
      return Object.keys(next).some((name) => next[name] !== this.props[name]);
    }

    render(props) {
      return h(draw, props);
    }
  };
}
