// Package resolver answers the DNS queries of machines: of allowed names only, and what it answers is opened before it is sent.
//
// There are only four types to begin with. A [Server] serves all machines of a state directory from one socket for each of UDP and TCP. It knows a machine by the source
// address of its queries, and asks [Policies] for its [Policy]: rules with their ids, and how an address is granted to one. What it doesn't know it asks an [Upstream], by
// default [System], the servers that the host asks.
//
// # What is answered
//
// A query for a name that no rule matches is REFUSED without asking anybody, and reported as [Denied]. For one that is allowed, by the type:
//
//	A                 the addresses, each of them granted to every rule that matches the name
//	AAAA, HTTPS, SVCB nothing (NOERROR), so that clients go on with IPv4
//	TXT, MX, SRV      what upstream says. Whoever may connect to a name may hear it; what MX and SRV name must be allowed itself to be resolved
//	others            REFUSED
//
// CNAMEs are followed, at most 8; what they lead to need not be allowed: the addresses are those of the name that was asked for.
//
// A name never opens a reserved address, one of the host or one of our own network. Such an address is left out of the answer, unless a CIDR rule of the policy names it: then
// it is in the answer, and still not granted to the name's rules: the CIDR rule opens it, for its protocol and ports. If any grant fails the answer is SERVFAIL.
//
// The TTL of an answer is upstream's, between Options.MinTTL and MaxTTL. Addresses are granted for Options.Slack longer: a client that keeps to the TTL never uses one that is
// closed.
//
// # Caveats
//
// Answers are cached for all machines together: a machine can find out by the time an answer takes whether another has asked lately for a name that both are allowed.
//
// musl's resolver (Alpine) takes REFUSED for a lost packet, and tells its program only after its time-out.
//
// A client that keeps addresses for longer than their TTL, as Java does with a TTL under 30 seconds, meets closed ones then. Flows that began earlier are not touched.
//
// A [Policies] must see to it that a Grant of a policy that is no longer in force fails, or opens nothing: a query may be answered by the policy that was there when it came.
package resolver
