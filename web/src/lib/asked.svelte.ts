// Questions of a view: asked again when what they depend on changes, or when it is time.

import { ask, Problem, type Answer, type Parameters } from "./api";

export interface Asked<T> {
  readonly answer: T | null;
  readonly problem: Problem | null;
  readonly isBusy: boolean;
}

/** Counts up when everything is to be asked again. */
class Beat {
  count = $state(0);
  seconds = $state(10);

  constructor() {
    let last = Date.now();
    setInterval(() => {
      if (!this.seconds || document.hidden || Date.now() - last < this.seconds * 1000) return;
      last = Date.now();
      this.count += 1;
    }, 500);
  }
}

export const beat = new Beat();

/** An answer that follows its question. isLive: it ends now, so it is asked again with the beat; null asks nothing. */
export function asked<T = Answer>(
  question: () => { path: string; parameters?: Parameters; isLive?: boolean } | null,
): Asked<T> {
  let answer = $state.raw<T | null>(null);
  let problem = $state.raw<Problem | null>(null);
  let isBusy = $state(true);
  $effect(() => {
    const put = question();
    if (!put) {
      answer = problem = null;
      isBusy = false;
      return;
    }
    if (put.isLive) void beat.count;
    const controller = new AbortController();
    isBusy = true;
    ask<T>(put.path, put.parameters, controller.signal)
      .then((told) => {
        answer = told;
        problem = null;
        isBusy = false;
      })
      .catch((error: unknown) => {
        if (controller.signal.aborted) return;
        problem = error instanceof Problem ? error : new Problem(String(error), 0, "fault");
        isBusy = false;
      });
    return () => controller.abort();
  });
  return {
    get answer() {
      return answer;
    },
    get problem() {
      return problem;
    },
    get isBusy() {
      return isBusy;
    },
  };
}
