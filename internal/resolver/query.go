package resolver

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"

	"github.com/tangle-network/microvm-runtime/egress"
)

// maxAddresses is how many addresses of an answer are granted and passed on.
const maxAddresses = 32

// answer returns the reply to a query, nil for none, and how large it may be over UDP.
func (s *Server) answer(packed []byte, source netip.Addr, policy *Policy) (reply *dns.Msg, size int) {
	query := new(dns.Msg)
	if query.Unpack(packed) != nil {
		return formatError(packed), minAnswer
	}
	if query.Response { // answering answers would let two servers talk for ever
		return nil, 0
	}
	reply, size = begin(query)
	if reply.Rcode != dns.RcodeSuccess {
		return reply, size
	}
	question := query.Question[0]
	name := strings.TrimSuffix(dns.CanonicalName(question.Name), ".")
	rules := matching(policy, name)
	if len(rules) == 0 {
		s.deny(Denied{Source: source, Name: name, Type: typeName(question.Qtype), Reason: NoRule})
		reject(reply, "no egress rule of this machine allows the name")
		return reply, size
	}
	ctx, cancel := context.WithTimeout(s.ctx, s.options.Timeout)
	defer cancel()
	switch question.Qtype {
	case dns.TypeA:
		s.answerAddresses(ctx, reply, name, source, policy, rules)
	case dns.TypeAAAA, dns.TypeHTTPS, dns.TypeSVCB:
	case dns.TypeTXT, dns.TypeMX, dns.TypeSRV:
		s.answerOther(ctx, reply, name, source)
	default:
		s.deny(Denied{Source: source, Name: name, Type: typeName(question.Qtype), Reason: NoSuchType})
		reject(reply, "only A, AAAA, HTTPS, SVCB, TXT, MX and SRV are answered")
	}
	return reply, size
}

// begin returns a reply to fill in. What it refuses has a code already.
func begin(query *dns.Msg) (reply *dns.Msg, size int) {
	reply = new(dns.Msg).SetReply(query)
	reply.RecursionAvailable, reply.Compress, reply.CheckingDisabled = true, true, false
	size = minAnswer
	opt := query.IsEdns0()
	if opt != nil {
		size = min(max(int(opt.UDPSize()), minAnswer), maxAnswer)
		reply.SetEdns0(maxAnswer, false)
	}
	switch {
	case query.Opcode != dns.OpcodeQuery:
		reply.Rcode = dns.RcodeNotImplemented
	case len(query.Question) != 1 || len(query.Answer) > 0 || len(query.Ns) > 0:
		reply.Rcode = dns.RcodeFormatError
	case opt != nil && opt.Version() != 0:
		reply.Rcode = dns.RcodeBadVers
	case query.Question[0].Qclass != dns.ClassINET:
		reply.Rcode = dns.RcodeRefused
	}
	return reply, size
}

// matching returns the rules that are for the name.
func matching(policy *Policy, name string) (rules []uint32) {
	for _, rule := range policy.Rules {
		if rule.MatchName(name) {
			rules = append(rules, rule.ID)
		}
	}
	return rules
}

func (s *Server) answerAddresses(ctx context.Context, reply *dns.Msg, name string, source netip.Addr, policy *Policy, rules []uint32) {
	found, err := s.cache.resolve(ctx, name, dns.TypeA)
	if err != nil {
		s.log("a name was not resolved", source, err)
		reply.Rcode = dns.RcodeServerFailure
		return
	}
	ttl := s.ttl(found)
	records, public := s.openable(found, name, source, policy)
	for _, addr := range public {
		for _, rule := range rules {
			if err := policy.Grant(rule, addr, ttl+s.options.Slack); err != nil { // an answer that nobody can use would be worse than none
				s.log("an address was not opened", source, err)
				reply.Rcode = dns.RcodeServerFailure
				return
			}
		}
	}
	reply.Rcode = found.rcode
	if len(records) == 0 && len(found.records) > 0 {
		explain(reply, "all addresses of the name are reserved, and no egress rule names them")
	}
	if len(records) > 0 {
		fill(reply, slices.Concat(found.chain, records), ttl)
	}
}

// openable returns the records that may be passed on, and of their addresses those that are the name's to open.
func (s *Server) openable(found *found, name string, source netip.Addr, policy *Policy) (records []dns.RR, public []netip.Addr) {
	for _, record := range found.records {
		a, ok := record.(*dns.A)
		if !ok || len(records) == maxAddresses {
			continue
		}
		addr, ok := netip.AddrFromSlice(a.A)
		addr = addr.Unmap()
		if !ok || !addr.Is4() {
			continue
		}
		host, ours := s.options.Host(addr), s.options.Subnet.Contains(addr)
		switch {
		case !host && !ours && !egress.IsReserved(addr):
			public = append(public, addr)
		case !s.named(policy, addr, host, ours):
			s.deny(Denied{Source: source, Name: name, Type: "A", Reason: ReservedAddress, Address: addr})
			continue
		}
		records = append(records, record)
	}
	return records, public
}

// named says whether a CIDR rule names an address that no name may open.
func (s *Server) named(policy *Policy, addr netip.Addr, host, ours bool) bool {
	for _, rule := range policy.Rules {
		if rule.Name == "" && rule.MatchAddress(addr, host) && (!ours || rule.CIDR.Bits() >= s.options.Subnet.Bits()) {
			return true
		}
	}
	return false
}

func (s *Server) answerOther(ctx context.Context, reply *dns.Msg, name string, source netip.Addr) {
	found, err := s.cache.resolve(ctx, name, reply.Question[0].Qtype)
	if err != nil {
		s.log("a name was not resolved", source, err)
		reply.Rcode = dns.RcodeServerFailure
		return
	}
	reply.Rcode = found.rcode
	fill(reply, slices.Concat(found.chain, found.records), s.ttl(found))
}

func (s *Server) ttl(found *found) time.Duration {
	return min(max(time.Until(found.expires), s.options.MinTTL), s.options.MaxTTL)
}

// fill copies records into the reply: those of the cache are shared.
func fill(reply *dns.Msg, records []dns.RR, ttl time.Duration) {
	for _, record := range records {
		record = dns.Copy(record)
		record.Header().Ttl = uint32(ttl / time.Second)
		reply.Answer = append(reply.Answer, record)
	}
}

// deny reports, as often as the machine's limit allows.
func (s *Server) deny(denied Denied) {
	if skipped, ok := s.machines.report(denied.Source); ok {
		denied.Skipped = skipped
		s.options.Denied(denied)
	}
}

func reject(reply *dns.Msg, why string) {
	reply.Rcode = dns.RcodeRefused
	explain(reply, why)
}

// explain says why to clients that can read it (RFC 8914).
func explain(reply *dns.Msg, why string) {
	if opt := reply.IsEdns0(); opt != nil {
		opt.Option = append(opt.Option, &dns.EDNS0_EDE{InfoCode: dns.ExtendedErrorCodeProhibited, ExtraText: why})
	}
}

// refusal answers who has no policy. It reads no more than the header.
func refusal(packed []byte) *dns.Msg { return bare(packed, dns.RcodeRefused) }

// formatError answers what can't be read.
func formatError(packed []byte) *dns.Msg { return bare(packed, dns.RcodeFormatError) }

func bare(packed []byte, rcode int) *dns.Msg {
	if len(packed) < headerBytes || packed[2]&0x80 != 0 { // an answer
		return nil
	}
	reply := new(dns.Msg)
	reply.Id, reply.Response, reply.Rcode = uint16(packed[0])<<8|uint16(packed[1]), true, rcode
	reply.Opcode = int(packed[2]>>3) & 0xf
	return reply
}

func typeName(kind uint16) string { return dns.Type(kind).String() }
