package resolver

// NewSystemAt is NewSystem of servers at another port.
func NewSystemAt(path, port string) *System {
	s := NewSystem(path)
	s.port = port
	return s
}

const CacheEntries = cacheEntries
