package resolver

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/miekg/dns"
)

const (
	maxChain    = 8
	maxNegative = time.Minute    // how long it is believed that there is nothing
	minNegative = time.Second    // also where upstream doesn't say
	maxTTL      = 24 * time.Hour // whatever upstream says
)

// found is what upstream knows of a name.
type found struct {
	rcode   int
	chain   []dns.RR // the CNAMEs from the name on
	records []dns.RR // of the type, at the end of the chain
	expires time.Time
}

// follow asks upstream for the records of a name, and for what its CNAMEs lead to where the answer doesn't say. It is bounded by maxChain questions.
func follow(ctx context.Context, upstream Upstream, name string, kind uint16, now time.Time) (*found, error) {
	result := &found{}
	ttl := maxTTL
	next := dns.CanonicalName(name)
	for range maxChain + 1 {
		reply, err := upstream.Exchange(ctx, question(next, kind))
		if err != nil {
			return nil, fmt.Errorf("resolve %s: %w", name, err)
		}
		if reply.Rcode != dns.RcodeSuccess && reply.Rcode != dns.RcodeNameError {
			return nil, fmt.Errorf("resolve %s: upstream says %s of %s", name, dns.RcodeToString[reply.Rcode], next)
		}
		asked := next
		if next, err = result.take(reply, next, kind, &ttl); err != nil {
			return nil, fmt.Errorf("resolve %s: %w", name, err)
		}
		result.rcode = reply.Rcode
		if len(result.records) > 0 {
			result.expires = now.Add(ttl)
			return result, nil
		}
		negative, told := nothingFor(reply)
		if next == asked || told || reply.Rcode == dns.RcodeNameError { // the end of the chain has no such record
			result.expires = now.Add(min(ttl, negative))
			return result, nil
		}
	}
	return nil, fmt.Errorf("resolve %s: more than %d CNAMEs", name, maxChain)
}

// question is all of a query that upstream sees: nothing of a client's message but the name.
func question(name string, kind uint16) *dns.Msg {
	query := new(dns.Msg).SetQuestion(name, kind)
	query.SetEdns0(maxAnswer, false)
	return query
}

// take walks the CNAMEs of a reply from name on, and takes the records at their end. It returns the end. What else is in the reply nobody has asked for.
func (f *found) take(reply *dns.Msg, name string, kind uint16, ttl *time.Duration) (end string, err error) {
	for {
		var alias *dns.CNAME
		for _, record := range reply.Answer {
			header := record.Header()
			if header.Class != dns.ClassINET || dns.CanonicalName(header.Name) != name {
				continue
			}
			if header.Rrtype == kind {
				f.records = append(f.records, record)
				*ttl = min(*ttl, time.Duration(header.Ttl)*time.Second)
			}
			if cname, ok := record.(*dns.CNAME); ok {
				alias = cname
			}
		}
		if len(f.records) > 0 || alias == nil {
			return name, nil
		}
		*ttl = min(*ttl, time.Duration(alias.Hdr.Ttl)*time.Second)
		if f.chain = append(f.chain, alias); len(f.chain) > maxChain { // also when they lead in a circle
			return "", fmt.Errorf("more than %d CNAMEs", maxChain)
		}
		name = dns.CanonicalName(alias.Target)
	}
}

// nothingFor says for how long nothing is there, and whether the reply says so itself (RFC 2308).
func nothingFor(reply *dns.Msg) (ttl time.Duration, told bool) {
	for _, record := range reply.Ns {
		if soa, ok := record.(*dns.SOA); ok {
			ttl = time.Duration(min(soa.Hdr.Ttl, soa.Minttl)) * time.Second
			return min(max(ttl, minNegative), maxNegative), true
		}
	}
	return minNegative, false
}

// key is a name and a type in the cache.
func key(name string, kind uint16) string { return strings.ToLower(name) + "/" + typeName(kind) }
