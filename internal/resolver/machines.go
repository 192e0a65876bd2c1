package resolver

import (
	"net/netip"
	"sync"
	"time"

	"github.com/tangle-network/microvm-runtime/internal/quota"
)

// machine is what one machine has taken.
type machine struct {
	queries, reports      *quota.Bucket
	inFlight, connections places // of machines.mu
	skipped               int    // of machines.mu
	used                  time.Time
}

// places are how many a machine has taken: the first ones are its own, and those beyond its share are of a pool that all have.
type places int

// take takes a place, unless the machine has as many as it may, or has its share and the pool is empty.
func (p *places) take(share, most int, pool *int, poolSize int) bool {
	beyond := int(*p) >= share
	if int(*p) >= most || beyond && *pool >= poolSize {
		return false
	}
	if beyond {
		*pool++
	}
	*p++
	return true
}

func (p *places) giveBack(share int, pool *int) {
	if *p--; int(*p) >= share {
		*pool--
	}
}

// machines are all that have asked lately.
type machines struct {
	limits                Limits
	mu                    sync.Mutex
	bySource              map[netip.Addr]*machine
	inFlight, connections int // of the pools: what machines have beyond their shares
	swept                 time.Time
}

// forget is after how long a machine that has taken nothing is as good as new: all its buckets are full.
const forget = time.Minute

func newMachines(limits Limits) *machines {
	return &machines{limits: limits, bySource: map[netip.Addr]*machine{}}
}

// get is called with the lock held.
func (m *machines) get(source netip.Addr, now time.Time) *machine {
	if now.Sub(m.swept) > forget {
		for addr, one := range m.bySource {
			if one.inFlight == 0 && one.connections == 0 && now.Sub(one.used) > forget {
				delete(m.bySource, addr)
			}
		}
		m.swept = now
	}
	one, ok := m.bySource[source]
	if !ok {
		one = &machine{queries: quota.New(m.limits.PerSecond, m.limits.Burst), reports: quota.New(m.limits.DeniedPerSecond, m.limits.DeniedBurst)}
		m.bySource[source] = one
	}
	one.used = now
	return one
}

// query counts one query in. When it may not be answered done is nil.
func (m *machines) query(source netip.Addr) (done func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	one := m.get(source, now)
	l := m.limits
	if !one.inFlight.take(l.Share, l.InFlight, &m.inFlight, l.TotalInFlight) {
		return nil
	}
	if !one.queries.Take(now) {
		one.inFlight.giveBack(l.Share, &m.inFlight)
		return nil
	}
	return func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		one.inFlight.giveBack(l.Share, &m.inFlight)
	}
}

// connection counts one TCP connection in. When it may not be served done is nil.
func (m *machines) connection(source netip.Addr) (done func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	one := m.get(source, time.Now())
	l := m.limits
	if !one.connections.take(l.ConnectionShare, l.Connections, &m.connections, l.TotalConnections) {
		return nil
	}
	return func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		one.connections.giveBack(l.ConnectionShare, &m.connections)
	}
}

// report says whether something that was denied is to be told, and how much was not since the last time.
func (m *machines) report(source netip.Addr) (skipped int, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	one := m.get(source, now)
	if !one.reports.Take(now) {
		one.skipped++
		return 0, false
	}
	skipped, one.skipped = one.skipped, 0
	return skipped, true
}
