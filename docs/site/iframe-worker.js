// Search runs in a worker, and browsers start no worker for pages that are opened from a disk. There
// a frame stands in for the worker: a script in it has a global scope of its own, as in a worker.
// (The name tells zensical not to fetch such a script from the network.)
if (location.protocol === "file:") {
  window.Worker = class {
    constructor(url) {
      this.onmessage = this.onerror = this.onmessageerror = null;
      this.frame = document.createElement("iframe");
      this.frame.hidden = true;
      document.body.append(this.frame);
      const scope = this.frame.contentWindow;
      scope.postMessage = (data) =>
        setTimeout(() => this.onmessage?.(new MessageEvent("message", { data })));
      const script = scope.document.createElement("script");
      script.src = new URL(url, location.href).href;
      this.loaded = new Promise((resolve) => {
        script.onload = () => resolve(scope);
        script.onerror = (event) => this.onerror?.(event);
      });
      scope.document.body.append(script);
    }

    postMessage(data) {
      this.loaded.then((scope) => scope.onmessage?.(new MessageEvent("message", { data })));
    }

    terminate() {
      this.frame.remove();
    }
  };
}
