package resolver

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// Upstream answers what the server doesn't know. Implementations are called by several goroutines at once, and keep to the context.
type Upstream interface {
	Exchange(ctx context.Context, query *dns.Msg) (*dns.Msg, error)
}

const (
	maxServers = 3 // as libc
	attempts   = 2 // of each server
	patience   = 2 * time.Second
)

// System asks the name servers of the host, or others that are fixed.
type System struct {
	path  string
	port  string
	fixed []string // in place of the file's

	mu   sync.Mutex
	good string // the server that answered last
}

var _ Upstream = (*System)(nil)

// NewSystem returns an upstream of the servers in a file like resolv.conf(5), as they are at each query: a host's servers change.
// An empty path is /etc/resolv.conf. Of the file's options none is heeded.
func NewSystem(path string) *System {
	return &System{path: cmp.Or(path, "/etc/resolv.conf"), port: "53"}
}

// NewFixed returns an upstream of these servers, at least one, in place of a file's.
func NewFixed(servers ...netip.AddrPort) *System {
	s := &System{}
	for _, server := range servers {
		s.fixed = append(s.fixed, server.String())
	}
	return s
}

// Exchange asks one server after the other, twice, beginning with the one that answered last, by UDP, and by TCP what is too long for that.
// A server that fails or refuses is passed over, unless all do.
func (s *System) Exchange(ctx context.Context, query *dns.Msg) (*dns.Msg, error) {
	servers, err := s.servers()
	if err != nil {
		return nil, err
	}
	var unwilling *dns.Msg
	var failed error
	for try := range attempts * len(servers) {
		server := servers[try%len(servers)]
		reply, err := s.ask(ctx, query, server)
		switch {
		case ctx.Err() != nil:
			return nil, context.Cause(ctx)
		case err != nil:
			failed = err
		case reply.Rcode == dns.RcodeSuccess || reply.Rcode == dns.RcodeNameError:
			s.mu.Lock()
			s.good = server
			s.mu.Unlock()
			return reply, nil
		default:
			unwilling = reply
		}
		if unwilling != nil && try >= len(servers)-1 { // all have been asked, and one has had its say
			return unwilling, nil
		}
	}
	return nil, failed
}

// servers returns the addresses of the servers that there are now, the one that answered last before the others.
func (s *System) servers() ([]string, error) {
	servers := s.fixed
	if servers == nil {
		var err error
		if servers, err = s.read(); err != nil {
			return nil, err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := slices.Index(servers, s.good); n > 0 {
		servers = append(servers[n:len(servers):len(servers)], servers[:n]...)
	}
	return servers, nil
}

// read returns the servers that the file names.
func (s *System) read() (servers []string, err error) {
	config, err := dns.ClientConfigFromFile(s.path)
	if err != nil {
		return nil, fmt.Errorf("name servers of the host: %w", err)
	}
	for _, server := range config.Servers[:min(len(config.Servers), maxServers)] {
		servers = append(servers, net.JoinHostPort(server, s.port))
	}
	if len(servers) == 0 {
		return nil, fmt.Errorf("name servers of the host: there is none in %s", s.path)
	}
	return servers, nil
}

// ask asks one server, from a port of its own each time: who wants to forge an answer must guess it.
func (s *System) ask(ctx context.Context, query *dns.Msg, server string) (*dns.Msg, error) {
	reply, err := exchange(ctx, "udp", query, server)
	if err == nil && reply.Truncated {
		reply, err = exchange(ctx, "tcp", query, server)
	}
	if err != nil {
		return nil, fmt.Errorf("ask %s: %w", server, err)
	}
	return reply, nil
}

func exchange(ctx context.Context, network string, query *dns.Msg, address string) (*dns.Msg, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	client := &dns.Client{Net: network, Timeout: patience}
	conn, err := client.DialContext(ctx, address)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	query = query.Copy()
	query.Id = dns.Id()
	reply, _, err := client.ExchangeWithConnContext(ctx, query, conn)
	if err != nil {
		return nil, err
	}
	if !reply.Response || len(reply.Question) != 1 || len(query.Question) != 1 || !sameQuestion(reply.Question[0], query.Question[0]) {
		return nil, errors.New("the answer is to another question")
	}
	return reply, nil
}

func sameQuestion(a, b dns.Question) bool {
	return a.Qtype == b.Qtype && a.Qclass == b.Qclass && dns.CanonicalName(a.Name) == dns.CanonicalName(b.Name)
}
