// werift-ice as a peer: one agent, told what to do by JSON lines on stdin. The lines are those of libnice_peer.py.
"use strict";
const readline = require("node:readline");
const { Candidate, Connection } = require("werift-ice");

const tell = (event, fields) => process.stdout.write(JSON.stringify({ event, ...fields }) + "\n");

function start({ role, turn }) {
  const connection = new Connection(role === "controlling", {
    useIpv4: true,
    useIpv6: false,
    useTcp: false,
    additionalHostAddresses: ["127.0.0.1"],
    ...(turn && {
      forceTurn: true,
      turnServer: [turn.host, turn.port],
      turnUsername: turn.username,
      turnPassword: turn.password,
    }),
  });
  connection.onData.subscribe((data) => tell("data", { hex: data.toString("hex") }));
  connection.stateChanged.subscribe((state) => tell("state", { state }));
  connection.onIceCandidate.subscribe((candidate) => tell("candidate", { line: candidate.toSdp() }));
  tell("credentials", { username: connection.localUsername, password: connection.localPassword });
  return connection;
}

async function gather(connection) {
  await connection.gatherCandidates();
  tell("candidate", { line: "" });
}

function pairOf(connection) {
  const pair = connection.nominated;
  if (pair) tell("pair", { local: pair.localCandidate.type, remote: pair.remoteCandidate.type });
}

let connection;
const orders = {
  start: (order) => {
    connection = start(order);
  },
  remote: async ({ username, password }) => {
    connection.setRemoteParams({ iceLite: false, usernameFragment: username, password });
    await gather(connection);
    await connection.connect();
    pairOf(connection);
  },
  candidate: ({ line }) => connection.addRemoteCandidate(line ? Candidate.fromSdp(line) : undefined),
  send: ({ hex }) => connection.send(Buffer.from(hex, "hex")),
  close: async () => {
    await connection.close();
    process.exit(0);
  },
};

const lines = readline.createInterface({ input: process.stdin });
lines.on("line", (line) => {
  const order = JSON.parse(line);
  Promise.resolve()
    .then(() => orders[order.do](order))
    .catch((error) => tell("error", { message: String(error && error.stack) }));
});
lines.on("close", () => process.exit(0)); // whoever started us is gone
