// Package egress says where a microVM may connect to: policies as data, with nothing of the host in it.
//
//	policy := egress.Policy{VerifySNI: true}
//	for _, text := range []string{"pypi.org:443", "*.pythonhosted.org:443", "udp:192.0.2.7:123"} {
//		rule, err := egress.ParseRule(text)
//		…
//		policy.Rules = append(policy.Rules, rule)
//	}
//
// There are only three types to begin with: a [Rule] allows flows to a CIDR or to a DNS name, a [Policy] is a list of rules, and what none of them allows is denied, and a
// [Flow] is what [Policy.Decide] is asked about. A [FieldError] says what is wrong with one of them.
//
// # Rules as text
//
// The text is [PROTOCOL:]TARGET[:PORT[-PORT]], also in JSON. The protocol is tcp, udp or icmp. Without one a rule is for every protocol, and with a port for tcp. The target
// is an IPv4 address or prefix, the word public, or a name:
//
//	example.com:443           tcp to port 443 of what example.com resolves to
//	*.example.com             anything to all names below example.com, at any depth; not to example.com itself
//	*:443                     tcp to port 443 of every name
//	udp:10.1.2.0/24:5000-5999 a range of ports in a private network
//	icmp:public               pings to every public address
//
// Case and a trailing dot mean nothing in names. Names beyond ASCII are written in punycode (xn--…).
//
// # Reserved addresses
//
// Private, loopback, link-local (there clouds keep their metadata) and other special addresses, all of [Reserved], are opened only by a rule that names them: a CIDR that lies
// wholly in one of these ranges. So 0.0.0.0/0, whose text is public, is every public address and no other, and a name never opens a reserved address, whatever it resolves to.
// An address of the host that the machine runs on is opened only by a rule for exactly this address, as a /32.
//
// # What a name rule can't promise
//
// A name rule opens addresses: those that the machine's resolver has answered for the name, for as long as the answer lives; flows that began by then may go on. Who serves
// from one address serves all its names: behind a content delivery network a rule for one customer reaches the others too. For TLS on TCP, Policy.VerifySNI closes most of
// that: the name that the client asks for must be one that a rule allows. It reads what the client says before encryption: a client that says one name and means another to a
// server that plays along (domain fronting, or the outer name of an encrypted ClientHello) is not told apart.
//
// An allowed name is also a way out for data: whoever runs its DNS zone sees what is asked below it. Prefer exact names to wildcards, and "*" is everybody.
//
// A guest may ask DNS of others than its resolver only where a rule allows this flow as any other. It learns addresses then that no name rule has opened: they stay closed.
// The same is true of DNS over TLS (port 853), and of DNS over HTTPS to an address or an allowed name. QUIC, which is udp to port 443, passes where udp is allowed, and
// VerifySNI does not look into it: with VerifySNI a name rule without a protocol is for TCP only, and one that says udp or icmp is still as wide as it reads.
//
// Resolving works for every name of a rule, whatever its protocol and ports. IPv6 is dropped, so no rule can open it.
package egress
