//go:build linux

package fakevmm

import (
	"fmt"
	"strings"
	"unicode"
)

// find returns the route of a request and the id in its path, or the refusal of a path that has none (src/firecracker/src/api_server/parsed_request.rs@v1.12.1, and what it calls).
// What follows behind a known path is ignored where the real one does not look.
func (r *Release) find(method, path string) (key, id string, err error) {
	tokens := strings.Split(strings.TrimSuffix(strings.TrimLeft(path, "/"), "/"), "/")
	first, rest := tokens[0], tokens[1:]
	prefix := method + " /" + first
	if len(rest) > 0 {
		for n := len(rest); n > 0; n-- {
			if key := prefix + "/" + strings.Join(rest[:n], "/"); r.knows(key) {
				return key, "", nil
			}
		}
	}
	if key := r.withID(prefix); key != "" {
		if len(rest) == 0 {
			return "", "", refusal("The ID cannot be empty.")
		}
		return key, rest[0], checkID(rest[0])
	}
	switch {
	case len(rest) > 0 && (first == "balloon" && method != "PUT" || first == "mmds" && method == "PUT"):
		return "", "", refusal(fmt.Sprintf("Unrecognized %s request path `%s`.", method, rest[0]))
	case first == "snapshot" && method == "PUT" && len(rest) == 0:
		return "", "", refusal("Missing snapshot operation type.")
	case first == "snapshot" && method == "PUT":
		first = "/snapshot/" + rest[0]
	case r.knows(prefix):
		return prefix, "", nil
	}
	return "", "", refusal(fmt.Sprintf("Invalid request method and/or path: %s %s.", method, first))
}

func (r *Release) knows(key string) bool {
	_, ok := r.Routes[key]
	return ok
}

// withID returns the route below a prefix that takes an id.
func (r *Release) withID(prefix string) string {
	for key := range r.Routes {
		if strings.HasPrefix(key, prefix+"/{") {
			return key
		}
	}
	return ""
}

func checkID(id string) error {
	if id == "" {
		return refusal("The ID cannot be empty.")
	}
	for _, c := range id {
		if c != '_' && !unicode.IsLetter(c) && !unicode.IsNumber(c) {
			return refusal("API Resource IDs can only contain alphanumeric characters and underscores.")
		}
	}
	return nil
}

// sameID refuses a body that is about another resource than its path.
func sameID(key, id, inBody string) error {
	switch {
	case id == inBody:
		return nil
	case strings.Contains(key, " /network-interfaces/"):
		return refusal(fmt.Sprintf("The id from the path [%s] does not match the id from the body [%s]!", id, inBody))
	}
	return refusal("The id from the path does not match the id from the body!")
}

// has says whether any route has a method: others its HTTP server does not know.
func (r *Release) has(method string) bool {
	for key := range r.Routes {
		if strings.HasPrefix(key, method+" ") {
			return true
		}
	}
	return false
}
