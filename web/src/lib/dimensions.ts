// What flows can be told apart by, in the order in which it is offered: docs/query.md has them all.

export const dimensions = [
  ...["application", "domain", "agent", "device", "direction", "client_addr", "server_addr", "server_port", "src_addr"],
  ...["dst_addr", "src_port", "dst_port", "service_port", "client_port", "protocol", "family", "vlan", "domain_source"],
  ...["tls_version", "tls_cipher", "alpn", "ja4", "ja4s", "http_method", "http_status", "dns_query", "dns_rcode", "mode"],
] as const;
