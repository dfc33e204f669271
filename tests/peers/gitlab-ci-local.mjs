// Runs jobs of a .gitlab-ci.yml on this machine, with the npm package `gitlab-ci-local`.
// It is written for node 22: what it takes from there is given to older ones.

Set.prototype.union ??= function (other) {
  return new Set([...this, ...other]);
};

await import('gitlab-ci-local/dist/index.js');
