// Code in a worker of the site that tries to reach another origin.
onmessage = ({ data: url }) => {
  fetch(url).catch(() => {});
  try {
    new WebSocket(url.replace('http', 'ws'));
  } catch {
    // refused at once
  }
  import(url).catch(() => {});
};
