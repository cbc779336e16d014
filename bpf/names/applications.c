/* What applications are called. */
#include "applications.h"

const char *const wm_application_names[WM_APPLICATIONS] = {
	"unknown",    "tls",  "http", "dns",	   "ssh",     "postgresql", "mysql",	 "redis", "smtp", "ftp",
	"imap",	      "pop3", "mqtt", "amqp",	   "mongodb", "smb",	    "rdp",	 "ldap",  "sip",  "rtsp",
	"bittorrent", "vnc",  "xmpp", "memcached", "kafka",   "stun",	    "telnet",	 "quic",  "mdns", "llmnr",
	"dtls",	      "ntp",  "dhcp", "dhcpv6",	   "snmp",    "ssdp",	    "wireguard", "grpc",  "git",
};
