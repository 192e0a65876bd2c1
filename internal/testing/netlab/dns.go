//go:build linux

package netlab

import (
	"io"
	"log"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"github.com/miekg/dns"
)

func discard() *log.Logger { return log.New(io.Discard, "", 0) }

// zone is all that the lab's resolver knows: lines as of a zone file, by the name that they are of.
type zone struct {
	mu      sync.Mutex
	records map[string][]dns.RR
}

// reset makes the names of the servers, with a lifetime of 60 seconds.
func (z *zone) reset() {
	z.mu.Lock()
	z.records = map[string][]dns.RR{}
	z.mu.Unlock()
	for name, address := range map[string]netip.Addr{
		"example.com.": Web, "www.example.com.": Web, "other.example.": Other, "echo.example.": Echo, "metadata.example.": Metadata, "private.example.": Private,
	} {
		if err := z.add(name + " 60 IN A " + address.String()); err != nil {
			panic(err)
		}
	}
	if err := z.add("alias.example. 60 IN CNAME www.example.com."); err != nil {
		panic(err)
	}
}

func (z *zone) add(line string) error {
	record, err := dns.NewRR(line)
	if err != nil {
		return err
	}
	z.mu.Lock()
	defer z.mu.Unlock()
	name := strings.ToLower(record.Header().Name)
	z.records[name] = append(z.records[name], record)
	return nil
}

// SetRecords replaces what the resolver knows of a name by lines as of a zone file; none: it knows nothing.
func (l *Lab) SetRecords(name string, lines ...string) error {
	l.zone.mu.Lock()
	delete(l.zone.records, dns.CanonicalName(name))
	l.zone.mu.Unlock()
	for _, line := range lines {
		if err := l.zone.add(line); err != nil {
			return err
		}
	}
	return nil
}

// answer follows aliases, as a resolver does.
func (z *zone) answer(q dns.Question) (records []dns.RR, known bool) {
	z.mu.Lock()
	defer z.mu.Unlock()
	name := strings.ToLower(q.Name)
	for range 16 {
		next := ""
		of, ok := z.records[name]
		known = known || ok
		for _, record := range of {
			if record.Header().Rrtype == q.Qtype {
				records = append(records, dns.Copy(record))
			} else if alias, ok := record.(*dns.CNAME); ok {
				records, next = append(records, dns.Copy(record)), strings.ToLower(alias.Target)
			}
		}
		if next == "" {
			break
		}
		name = next
	}
	return records, known
}

// resolver begins the one at [DNS], by udp and tcp.
func (l *Lab) resolver() error {
	at := netip.AddrPortFrom(DNS, 53)
	handler := dns.HandlerFunc(func(w dns.ResponseWriter, query *dns.Msg) {
		reply := new(dns.Msg).SetReply(query)
		reply.RecursionAvailable = true
		for _, q := range query.Question {
			l.note(Arrival{Service: "dns", From: addrPort(w.RemoteAddr()), To: at, Text: q.Name})
			records, known := l.zone.answer(q)
			if reply.Answer = slices.Concat(reply.Answer, records); !known {
				reply.Rcode = dns.RcodeNameError
			}
		}
		w.WriteMsg(reply) //nolint // who asked may be gone
	})
	conn, err := l.packets(l.internet, at)
	if err != nil {
		return err
	}
	listener, err := l.listener(l.internet, at)
	if err != nil {
		return err
	}
	for _, server := range []*dns.Server{{PacketConn: conn, Handler: handler}, {Listener: listener, Handler: handler}} {
		l.servers.Go(func() { server.ActivateAndServe() })
	}
	return nil
}
