package resolver

import (
	"cmp"
	"context"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/tangle-network/microvm-runtime/egress"
	"github.com/tangle-network/microvm-runtime/internal/quota"
)

// Rule is a rule of a policy with the number that the firewall knows it by.
type Rule struct {
	ID uint32
	egress.Rule
}

// Policy is what a machine may resolve. It is not changed once it was handed out.
type Policy struct {
	Rules []Rule
	// Grant opens the address for the flows of a rule, for ttl from now. It must return soon, and is called by several goroutines at once.
	Grant func(rule uint32, addr netip.Addr, ttl time.Duration) error
}

// Policies tells what applies to whom. Its methods are called by several goroutines at once, for each query.
type Policies interface {
	// Policy returns the policy of the machine whose queries come from source, false when there is none.
	Policy(source netip.Addr) (*Policy, bool)
}

// Options are how a [Server] serves. Required are Policies and nothing else.
type Options struct {
	Policies Policies
	Upstream Upstream              // Optional: [NewSystem] of /etc/resolv.conf.
	Host     func(netip.Addr) bool // Whether an address is the host's own: such is answered only where a rule is exactly this address. Optional: none is.
	Subnet   netip.Prefix          // Our own network: its addresses are answered only where a CIDR rule lies wholly in it. Optional.
	Denied   func(Denied)          // Is told what was denied, at most Limits.DeniedPerSecond for each machine; must not block. Optional.
	Log      *slog.Logger          // Is told why upstream or a grant failed, at most once a second. Optional.
	MinTTL   time.Duration         // Answers live at least so long. Optional: 5 seconds.
	MaxTTL   time.Duration         // Answers live at most so long. Optional: an hour.
	Slack    time.Duration         // How much longer than answers their addresses are open. Optional: 10 seconds.
	Timeout  time.Duration         // How long a query may take. Optional: 8 seconds.
	Limits   Limits                // Optional.
}

// Limits bound what machines can take of the server. Zero fields have the defaults.
type Limits struct {
	PerSecond, Burst             int           // Queries of a machine; 100 and 200. More are dropped.
	InFlight                     int           // Queries of a machine at the same time; 32. More are dropped.
	Share                        int           // Of these, those that no other machine can take a machine's place for; 4.
	TotalInFlight                int           // Queries of all machines at the same time, beside each one's Share; 1024. More are dropped.
	Connections                  int           // TCP connections of a machine; 8. More are closed.
	ConnectionShare              int           // Of these, those that no other machine can take a machine's place for; 2.
	TotalConnections             int           // TCP connections of all machines, beside each one's ConnectionShare; 512. More are closed.
	Idle                         time.Duration // How long a TCP connection may take for one query to come in, or an answer to go out; 10 seconds.
	DeniedPerSecond, DeniedBurst int           // Reports of denied names of a machine; 10 and 50. More are counted only.
}

func (o Options) withDefaults() Options {
	o.MinTTL, o.MaxTTL = cmp.Or(o.MinTTL, 5*time.Second), cmp.Or(o.MaxTTL, time.Hour)
	o.Slack, o.Timeout = cmp.Or(o.Slack, 10*time.Second), cmp.Or(o.Timeout, 8*time.Second)
	l := &o.Limits
	l.PerSecond, l.Burst = cmp.Or(l.PerSecond, 100), cmp.Or(l.Burst, 200)
	l.InFlight, l.Share, l.TotalInFlight = cmp.Or(l.InFlight, 32), cmp.Or(l.Share, 4), cmp.Or(l.TotalInFlight, 1024)
	l.Connections, l.ConnectionShare, l.TotalConnections = cmp.Or(l.Connections, 8), cmp.Or(l.ConnectionShare, 2), cmp.Or(l.TotalConnections, 512)
	l.Idle = cmp.Or(l.Idle, 10*time.Second)
	l.DeniedPerSecond, l.DeniedBurst = cmp.Or(l.DeniedPerSecond, 10), cmp.Or(l.DeniedBurst, 50)
	if o.Host == nil {
		o.Host = func(netip.Addr) bool { return false }
	}
	if o.Denied == nil {
		o.Denied = func(Denied) {}
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Upstream == nil {
		o.Upstream = NewSystem("")
	}
	return o
}

// Why something was denied.
const (
	NoRule          = "name"    // No rule allows the name.
	NoSuchType      = "type"    // The name is allowed, and the type is not answered.
	ReservedAddress = "address" // The name is allowed, and has an address that a name can't open.
)

// Denied is a query that was not answered, or an address that was left out.
type Denied struct {
	Source  netip.Addr
	Name    string     // As it was asked for, in lower case without a trailing dot; what is no letter, digit, - or _ is escaped as in zone files.
	Type    string     // Such as "A", or "TYPE65399".
	Reason  string     // One of the constants.
	Address netip.Addr // Where the reason is ReservedAddress.
	Skipped int        // How many reports of this machine the limit has swallowed since its last one.
}

// Server answers the queries of machines.
type Server struct {
	options  Options
	cache    *cache
	machines *machines
	complain *quota.Bucket // of the log
	packets  net.PacketConn
	listener net.Listener
	ctx      context.Context // ends with Close
	cancel   context.CancelFunc
	running  sync.WaitGroup
	closing  sync.Once
	err      error
}

// Serve answers what comes to the two sockets until Close, which closes them. Both were made in the network namespace that machines' queries arrive in; upstream is asked from the
// namespace of this process.
func Serve(packets net.PacketConn, listener net.Listener, options Options) *Server {
	options = options.withDefaults()
	ctx, cancel := context.WithCancel(context.Background())
	s := &Server{options: options, packets: packets, listener: listener, ctx: ctx, cancel: cancel}
	s.cache, s.machines, s.complain = newCache(options.Upstream), newMachines(options.Limits), quota.New(1, 5)
	s.running.Go(s.serveUDP)
	s.running.Go(s.serveTCP)
	return s
}

// Close ends the server, and waits for all that it has begun; at most for what Grant takes. It may be called more than once.
func (s *Server) Close() error {
	s.closing.Do(func() {
		s.cancel()
		s.err = cmp.Or(s.packets.Close(), s.listener.Close())
	})
	s.running.Wait()
	return s.err
}

// log says why something failed, unless it was said a moment ago.
func (s *Server) log(message string, source netip.Addr, err error) {
	if s.ctx.Err() == nil && s.complain.Take(time.Now()) {
		s.options.Log.Warn(message, "source", source, "error", err)
	}
}
