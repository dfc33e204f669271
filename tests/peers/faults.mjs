// Faults that a test can switch on in a running server.
//
// A fault is an object: `path` (or `*`), `times` (absent: until cleared), and
//
//   kind      what happens
//   answer    `status`, `headers`, `body` instead of the real answer; `bytes`
//             makes the body that long
//   hang      no answer, ever
//   drop      the connection is closed before anything is done
//   lose      the request is carried out, its answer is lost
//   slow      the request is carried out `ms` milliseconds later
//   late      the request is carried out, and answered `ms` milliseconds later
//   patch     in the real answer's JSON, the members of `set` are set and those
//             of `remove` removed
//   date      the answer's Date header is off by `seconds`

export class Faults {
  #faults = [];
  #record;

  // `record(request, status, fault)` is called once for each request, before
  // its answer leaves; `status` is null where there is none.
  constructor(record) {
    this.#record = record;
  }

  add(fault) {
    this.#faults.push({ ...fault, left: fault.times ?? Infinity });
  }

  clear() {
    this.#faults = [];
  }

  #take(path) {
    const found = this.#faults.find((fault) => (fault.path === '*' || fault.path === path) && fault.left > 0);
    if (found) found.left -= 1;
    return found;
  }

  // Lets `provide` answer the request, or what is on for its path.
  around(req, res, provide) {
    const fault = this.#take(req.url.split('?')[0]);
    const record = (status) => this.#record(req, status, fault?.kind);
    switch (fault?.kind) {
      case 'answer':
        record(fault.status ?? 200);
        res.writeHead(fault.status ?? 200, fault.headers ?? {});
        res.end(fault.bytes ? Buffer.alloc(fault.bytes, ' ') : fault.body);
        return;
      case 'hang':
        record(null);
        return;
      case 'drop':
        record(null);
        req.socket.destroy();
        return;
      case 'lose':
        this.#onEnd(res, () => {
          record(null);
          req.socket.destroy();
        });
        break;
      case 'slow':
        this.#onEnd(res, (end) => { record(res.statusCode); end(); });
        setTimeout(provide, fault.ms);
        return;
      case 'late':
        this.#onEnd(res, (end) => { record(res.statusCode); setTimeout(end, fault.ms); });
        break;
      case 'patch':
        this.#onEnd(res, (end, body) => { record(res.statusCode); end(patched(res, body, fault)); });
        break;
      case 'date':
        res.setHeader('Date', new Date(Date.now() + fault.seconds * 1000).toUTCString());
        this.#onEnd(res, (end) => { record(res.statusCode); end(); });
        break;
      case undefined:
        this.#onEnd(res, (end) => { record(res.statusCode); end(); });
        break;
      default:
        throw new Error(`no such fault: ${fault.kind}`);
    }
    provide();
  }

  // Calls `then(end, body)` in place of the answer's end.
  #onEnd(res, then) {
    const end = res.end.bind(res);
    res.end = (body, ...rest) => {
      then((other) => end(other ?? body, ...(other === undefined ? rest : [])), body);
      return res;
    };
  }
}

function patched(res, body, { set = {}, remove = [] }) {
  let json;
  try {
    json = JSON.parse(body);
  } catch {
    return undefined;
  }
  Object.assign(json, set);
  for (const name of remove) delete json[name];
  const text = JSON.stringify(json);
  res.setHeader('Content-Length', Buffer.byteLength(text));
  return text;
}
