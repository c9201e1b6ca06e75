// Which addresses of the net are public, in Node. Asks the resolver, and nothing else.

import { lookup } from "node:dns/promises";
import { BlockList, isIP } from "node:net";

/**
 * Ranges of IPv4 that are no public host's: this network, private, shared (carriers'), loopback,
 * link-local, special, multicast, reserved.
 */
const PRIVATE = [
  ...["0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24"],
  ...["192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4"],
];

/**
 * Of IPv6 only what is global unicast is public, and IPv4 in IPv6: mapped, and as a NAT64 has it.
 */
const PUBLIC6 = ["2000::/3", "::ffff:0:0/96", "64:ff9b::/96"];
/** What is special within: protocols' own (Teredo among them), documentation, 6to4. */
const PRIVATE6 = ["2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20"];

const refused = new BlockList();
const global = new BlockList();

function add(list: BlockList, range: string, prefix = "", family: "ipv4" | "ipv6" = "ipv6"): void {
  const [net = "", bits = ""] = range.split("/");
  list.addSubnet(`${prefix}${net}`, Number(bits) + (prefix === "" ? 0 : 96), family);
}

for (const range of PRIVATE) {
  add(refused, range, "", "ipv4");
  add(refused, range, "::ffff:");
  add(refused, range, "64:ff9b::");
}
for (const range of PRIVATE6) add(refused, range);
for (const range of PUBLIC6) add(global, range);

/** Whether an address, written out, is of a host that anyone can reach. */
export function isPublic(address: string): boolean {
  switch (isIP(address)) {
    case 4:
      return !refused.check(address, "ipv4");
    case 6:
      return global.check(address, "ipv6") && !refused.check(address, "ipv6");
    default:
      return false;
  }
}

/** Whether a host (an address's `hostname`) has an address that is not public, or none at all. */
export async function isPrivate(host: string): Promise<boolean> {
  const name = host.replace(/^\[(.*)\]$/, "$1");
  const found = isIP(name) ? [name] : (await lookup(name, { all: true })).map(({ address }) => address);
  return found.length === 0 || !found.every(isPublic);
}
