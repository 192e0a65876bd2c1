package resolver

import (
	"context"
	"sync"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sync/singleflight"
)

const (
	cacheEntries = 4096
	cachedBytes  = 4096 // the most of one answer
)

// cache keeps answers until they expire, and asks upstream once for all that want the same.
type cache struct {
	upstream Upstream
	flights  singleflight.Group
	mu       sync.Mutex
	entries  map[string]*found
}

func newCache(upstream Upstream) *cache {
	return &cache{upstream: upstream, entries: map[string]*found{}}
}

// resolve returns what upstream knows. It is shared: nobody may change it. When several ask at once, the first one's context bounds all.
func (c *cache) resolve(ctx context.Context, name string, kind uint16) (*found, error) {
	key := key(name, kind)
	if known := c.get(key, time.Now()); known != nil {
		return known, nil
	}
	result, err, _ := c.flights.Do(key, func() (any, error) {
		if known := c.get(key, time.Now()); known != nil { // a flight has landed meanwhile
			return known, nil
		}
		now := time.Now()
		fresh, err := follow(ctx, c.upstream, name, kind, now)
		if err == nil {
			c.put(key, fresh, now)
		}
		return fresh, err
	})
	if err != nil {
		return nil, err
	}
	return result.(*found), nil
}

func (c *cache) get(key string, now time.Time) *found {
	c.mu.Lock()
	defer c.mu.Unlock()
	if known, ok := c.entries[key]; ok && now.Before(known.expires) {
		return known
	}
	return nil
}

// put makes room where there is none: first of what has expired, then of anything.
func (c *cache) put(key string, fresh *found, now time.Time) {
	if !now.Before(fresh.expires) || fresh.size() > cachedBytes {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.entries[key]; !ok && len(c.entries) >= cacheEntries {
		c.evict(now)
	}
	c.entries[key] = fresh
}

func (c *cache) evict(now time.Time) {
	for key, known := range c.entries {
		if !now.Before(known.expires) {
			delete(c.entries, key)
		}
	}
	for key := range c.entries { // an order that nobody can foresee
		if len(c.entries) < cacheEntries*9/10 {
			return
		}
		delete(c.entries, key)
	}
}

func (f *found) size() (bytes int) {
	for _, records := range [][]dns.RR{f.chain, f.records} {
		for _, record := range records {
			bytes += dns.Len(record)
		}
	}
	return bytes
}
