//go:build linux

package agent

import (
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"

	"github.com/tangle-network/microvm-runtime/internal/wire"
)

// variables are those of every command. Their values are nobody's to print.
type variables struct {
	mu     sync.Mutex
	values map[string]string
}

func (s *Server) setEnv(w http.ResponseWriter, r *http.Request) {
	var request wire.Env
	if !decode(w, r, &request) {
		return
	}
	if err := s.env.merge(request.Set); err != nil {
		fail(w, err)
		return
	}
	answer(w, struct{}{})
}

// merge sets all variables, and deletes those without a value; or it does nothing and says why.
func (v *variables) merge(set map[string]string) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	merged := maps.Clone(v.values)
	if merged == nil {
		merged = map[string]string{}
	}
	for name, value := range set {
		switch {
		case !wire.ValidVariable(name):
			return refuse(wire.CodeInvalid, "variable %.80q (a name must be of A-Z, a-z, 0-9 and _, and not begin with a digit)", name)
		case strings.ContainsRune(value, 0):
			return refuse(wire.CodeInvalid, "variable %.80q: a NUL byte stands in its value", name)
		case len(name)+len(value) > wire.MaxVariable:
			return refuse(wire.CodeInvalid, "variable %.80q: %d bytes (at most %d are kept)", name, len(name)+len(value), wire.MaxVariable)
		case value == "":
			delete(merged, name)
		default:
			merged[name] = value
		}
	}
	total := 0
	for name, value := range merged {
		total += len(name) + len(value)
	}
	if total > wire.MaxEnv {
		return refuse(wire.CodeInvalid, "all variables would be %d bytes (at most %d are kept)", total, wire.MaxEnv)
	}
	v.values = merged
	return nil
}

// list returns all as NAME=VALUE, in order.
func (v *variables) list() []string {
	v.mu.Lock()
	defer v.mu.Unlock()
	var list []string
	for _, name := range slices.Sorted(maps.Keys(v.values)) {
		list = append(list, name+"="+v.values[name])
	}
	return list
}
