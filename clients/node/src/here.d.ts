/** Written by scripts/build.mjs, since the two builds know their place in different ways: `require`, from here. */
export declare function requireHere(name: string): unknown;
