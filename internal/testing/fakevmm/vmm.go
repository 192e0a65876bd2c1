//go:build linux

package fakevmm

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
)

// The refusals that depend on what was called before, in the words of src/vmm/src/rpc_interface.rs@v1.12.1 and what it calls.
const (
	tooEarly = "The requested operation is not supported before starting the microVM."
	tooLate  = "The requested operation is not supported after starting the microVM."
	tooLong  = "{ \"error\": \"Request payload with size %d is larger than the limit of %d allowed by server.\nAll previous unanswered requests will be dropped.\" }"
	noMethod = "{ \"error\": \"Invalid HTTP Method: Unsupported HTTP method.\nAll previous unanswered requests will be dropped.\" }" // of its HTTP server
	tainted  = "Load snapshot error: Loading a microVM snapshot not allowed after configuring boot-specific resources."
)

// bodyLimit is how long a body may be, in bytes, unless the command line says otherwise.
const bodyLimit = 51200

// VMM is one microVM as the API sees it.
type VMM struct {
	Release Release
	ID      string
	Dir     string // That its paths are relative to. Optional: the process's own.
	// Boot is called when the machine starts. An error of it is the refusal of the start.
	Boot func() error
	// Loaded is called when the machine begins with a snapshot.
	Loaded func() error
	// CtrlAltDel is called when the guest gets it.
	CtrlAltDel func()
	// Logger is called when the log is configured.
	Logger func(values map[string]json.RawMessage)

	mu         sync.Mutex
	set        map[string]map[string]json.RawMessage // configured resources by path
	orders     map[string][]string                   // of the paths in set, by section
	forwarding []string                              // paths of NICs that forward metadata
	data       any                                   // of MMDS
	filled     bool                                  // data was put
	taint      bool                                  // something boot-specific was configured
	metrics    bool
	booted     bool
	paused     bool
	dead       bool // what it refused last ends it
}

// late are the requests of a started machine; early those of one that has not started. The others are for both.
var (
	late = []string{
		"GET /balloon/statistics", "PATCH /balloon", "PATCH /balloon/statistics", "PATCH /drives/{drive_id}", "PATCH /network-interfaces/{iface_id}", "PUT /snapshot/create", "PATCH /vm",
		"GET /balloon/hinting/status", "PATCH /balloon/hinting/start", "PATCH /balloon/hinting/stop", "PATCH /hotplug/memory", "GET /hotplug/memory", "PATCH /pmem/{id}",
		"DELETE /drives/{drive_id}", "DELETE /pmem/{id}", "DELETE /network-interfaces/{iface_id}",
	}
	early = []string{
		"PUT /machine-config", "PATCH /machine-config", "PUT /boot-source", "PUT /cpu-config", "PUT /drives/{drive_id}", "PUT /network-interfaces/{iface_id}", "PUT /vsock", "PUT /balloon",
		"PUT /mmds/config", "PUT /logger", "PUT /metrics", "PUT /entropy", "PUT /snapshot/load", "PUT /serial", "PUT /pmem/{id}", "PUT /hotplug/memory",
	}
	// tainting are those after which no snapshot can be loaded. That a call is refused does not undo it.
	tainting = []string{
		"PUT /machine-config", "PATCH /machine-config", "PUT /boot-source", "PUT /drives/{drive_id}", "PUT /network-interfaces/{iface_id}", "PUT /vsock", "PUT /balloon", "PUT /mmds/config",
		"PUT /entropy", "PUT /pmem/{id}", "PUT /hotplug/memory",
	}
)

// refusal is a fault_message.
type refusal string

func (r refusal) Error() string { return string(r) }

// Do answers a request: a status and, unless it is 204, a JSON text.
func (v *VMM) Do(method, path string, body []byte) (status int, text []byte) {
	v.mu.Lock()
	defer v.mu.Unlock()
	switch {
	case !v.Release.has(method):
		return http.StatusBadRequest, []byte(noMethod)
	case len(body) > bodyLimit:
		return http.StatusBadRequest, fmt.Appendf(nil, tooLong, len(body), bodyLimit)
	}
	answer, err := v.do(method, path, body)
	if err != nil {
		answer, status = map[string]string{"fault_message": err.Error()}, http.StatusBadRequest
		if err == errTooLarge {
			status = http.StatusRequestEntityTooLarge
		}
	} else if answer == nil {
		return http.StatusNoContent, nil
	} else {
		status = http.StatusOK
	}
	text, err = json.Marshal(answer)
	if err != nil {
		return http.StatusInternalServerError, []byte(err.Error())
	}
	return status, text
}

// Dead says that the request before has ended the VMM.
func (v *VMM) Dead() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.dead
}

func (v *VMM) do(method, path string, body []byte) (any, error) {
	switch {
	case method == "GET" && len(body) > 0:
		return nil, refusal("GET request cannot have a body.")
	case method != "GET" && method != "DELETE" && len(body) == 0:
		return nil, refusal("Empty " + method + " request.")
	}
	key, id, err := v.Release.find(method, path)
	if err != nil {
		return nil, err
	}
	r := request{key: key, path: key[strings.Index(key, "/"):], body: body}
	if id != "" {
		r.path = r.path[:strings.Index(r.path, "{")] + id
	}
	if name := v.Release.Routes[key].Body; name != "" {
		if r.values, err = v.parse(key, name, body); err != nil {
			return nil, err
		}
	}
	if id != "" && method != "DELETE" {
		if err := sameID(key, id, text(r.values[key[strings.Index(key, "{")+1:len(key)-1]])); err != nil {
			return nil, err
		}
	}
	if v.booted && slices.Contains(early, key) {
		return nil, refusal(tooLate)
	}
	if !v.booted && slices.Contains(late, key) {
		return nil, refusal(tooEarly)
	}
	if slices.Contains(tainting, key) {
		v.taint = true
	}
	return v.act(r)
}

// request is one that was understood.
type request struct {
	key, path string // "PUT /drives/{drive_id}", "/drives/d1"
	values    map[string]json.RawMessage
	body      []byte
}

func (v *VMM) parse(key, name string, body []byte) (map[string]json.RawMessage, error) {
	values, err := v.Release.parseBody(name, body)
	switch {
	case err == nil && key == "PATCH /machine-config" && len(values) == 0:
		return nil, refusal("Empty PATCH request.")
	case err == nil && key == "PUT /snapshot/load":
		err = oneBackend(values)
	}
	return values, prefixed(err)
}

func prefixed(err error) error {
	if err == nil {
		return nil
	}
	return refusal(deserializing + err.Error() + ".")
}

func oneBackend(values map[string]json.RawMessage) error {
	path, backend := values["mem_file_path"] != nil, values["mem_backend"] != nil
	switch {
	case path && backend:
		return refusal("too many fields: either `mem_backend` or `mem_file_path` exclusively is required")
	case !path && !backend:
		return refusal("missing field: either `mem_backend` or `mem_file_path` is required")
	}
	return nil
}
