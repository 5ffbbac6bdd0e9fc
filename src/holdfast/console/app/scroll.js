// The end of the conversation stays in view while the reader is there, and only then.

import { useEffect, useLayoutEffect, useRef, useState } from "./html.js";

const NEAR = 48; // pixels from the end that still count as there

/**
 * Follow the end of `content` in the scroller `page`; a new `jump` goes there, `false` begins at the start.
 *
 * Whoever scrolls up is left alone until they come back. Growth is seen by the browser's observer,
 * so nothing is measured for each piece of text.
 */
export function useFollowing(page, content, jump) {
  const follows = useRef(true);
  const last = useRef(0);
  const kept = useRef(null); // from the end, what is seen when more comes in above it
  const [away, setAway] = useState(false);

  const toEnd = () => {
    follows.current = true;
    setAway(false);
    page.current.scrollTop = page.current.scrollHeight;
  };

  useLayoutEffect(() => {
    if (jump !== false) toEnd();
    else page.current.scrollTop = 0;
    follows.current = jump !== false;
  }, [jump]);

  const keepPlace = () => {
    follows.current = false;
    kept.current = page.current.scrollHeight - page.current.scrollTop;
  };

  useLayoutEffect(() => {
    if (kept.current !== null) page.current.scrollTop = page.current.scrollHeight - kept.current;
    kept.current = null;
  });

  useEffect(() => {
    const observer = new ResizeObserver(() => {
      if (follows.current) page.current.scrollTop = page.current.scrollHeight;
      else setAway(distance(page.current) > NEAR);
    });
    observer.observe(content.current);
    observer.observe(page.current);
    return () => observer.disconnect();
  }, []);

  const onScroll = () => {
    const { scrollTop } = page.current;
    const left = distance(page.current);
    if (left < 2) follows.current = true;
    else if (scrollTop < last.current - 1) follows.current = false;
    else if (scrollTop > last.current && left < NEAR) follows.current = true;
    last.current = scrollTop;
    setAway(!follows.current && left > NEAR);
  };

  return { away, toEnd, keepPlace, onScroll };
}

const distance = ({ scrollHeight, scrollTop, clientHeight }) => scrollHeight - scrollTop - clientHeight;
