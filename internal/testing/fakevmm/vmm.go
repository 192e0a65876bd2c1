//go:build linux

package fakevmm

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
)

// The refusals that depend on what was called before, in the words of src/vmm/src/rpc_interface.rs@v1.12.1 and what it calls.
const (
	tooEarly  = "The requested operation is not supported before starting the microVM."
	tooLate   = "The requested operation is not supported after starting the microVM."
	noBalloon = "Balloon config error: No balloon device found."
	noMethod  = "{ \"error\": \"Invalid HTTP Method: Unsupported HTTP method.\nAll previous unanswered requests will be dropped.\" }" // of its HTTP server
	tainted   = "Load snapshot error: Loading a microVM snapshot not allowed after configuring boot-specific resources."
)

// VMM is one microVM as the API sees it.
type VMM struct {
	Release Release
	ID      string
	// Boot is called when the machine starts. An error of it is the refusal of the start.
	Boot func() error
	// CtrlAltDel is called when the guest gets it.
	CtrlAltDel func()

	mu      sync.Mutex
	set     map[string]map[string]json.RawMessage // configured resources by path
	paths   []string                              // of set, in the order of their configuration
	data    map[string]json.RawMessage            // of MMDS; nil before the first PUT
	taint   bool                                  // something boot-specific was configured
	metrics bool
	booted  bool
	paused  bool
	dead    bool // what it refused last ends it
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
	if method == "DELETE" && !v.Release.has(method) {
		return http.StatusBadRequest, []byte(noMethod)
	}
	answer, err := v.do(method, path, body)
	if err != nil {
		answer, status = map[string]string{"fault_message": err.Error()}, http.StatusBadRequest
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
	key, route, ok := v.Release.pattern(method, path)
	if !ok {
		return nil, unknown(method, path)
	}
	var values map[string]json.RawMessage
	if route.Body != "" {
		var err error
		if values, err = v.parse(key, route.Body, body); err != nil {
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
	return v.act(key, path, values)
}

func (v *VMM) parse(key, name string, body []byte) (map[string]json.RawMessage, error) {
	if key == "PATCH /machine-config" {
		values, err := v.Release.parsePatch(name, body)
		if err == nil && len(values) == 0 {
			return nil, refusal("Empty PATCH request.")
		}
		return values, prefixed(err)
	}
	values, err := v.Release.parseBody(name, body)
	if err == nil && key == "PUT /snapshot/load" {
		err = oneBackend(values)
	}
	return values, prefixed(err)
}

// parsePatch is parseBody without required fields.
func (r *Release) parsePatch(name string, body []byte) (map[string]json.RawMessage, error) {
	loose := Release{Types: map[string][]string{}}
	for _, field := range r.Types[name] {
		loose.Types[name] = append(loose.Types[name], strings.ReplaceAll(field, "*", ""))
	}
	return loose.parseBody(name, body)
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

// unknown is the refusal of a request for which there is no route.
func unknown(method, path string) error {
	first, rest, _ := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	if second, _, _ := strings.Cut(rest, "/"); first == "balloon" && second != "" {
		return refusal(fmt.Sprintf("Unrecognized %s request path `%s`.", method, second))
	}
	return refusal(fmt.Sprintf("Invalid request method and/or path: %s %s.", method, first))
}

// act does what was asked for.
func (v *VMM) act(key, path string, values map[string]json.RawMessage) (any, error) {
	if v.set == nil {
		v.set = map[string]map[string]json.RawMessage{}
	}
	switch key {
	case "GET /":
		return map[string]string{"id": v.ID, "state": v.state(), "vmm_version": v.Release.Version, "app_name": "Firecracker"}, nil
	case "GET /version":
		return map[string]string{"firecracker_version": v.Release.Version}, nil
	case "GET /vm/config":
		return v.config(), nil
	case "GET /machine-config":
		return v.machineConfig(), nil
	case "GET /balloon", "GET /balloon/statistics", "PATCH /balloon", "PATCH /balloon/statistics":
		return v.balloon(key)
	case "GET /mmds":
		return v.data, nil
	case "PUT /mmds":
		v.data = values
		return nil, nil
	case "PATCH /mmds":
		if v.data == nil {
			return nil, refusal("MMDS error: The MMDS data store is not initialized.")
		}
		maps.Copy(v.data, values)
		return nil, nil
	case "PUT /mmds/config":
		return nil, v.mmdsConfig(values)
	case "PUT /metrics":
		if v.metrics {
			return nil, refusal("Metrics error: Cannot initialize the metrics system due to bad user input: Reinitialization of metrics not allowed.")
		}
		v.metrics = true
		return nil, nil
	case "PUT /actions":
		return nil, v.action(text(values["action_type"]))
	case "PATCH /vm":
		v.paused = text(values["state"]) == "Paused"
		return nil, nil
	case "PUT /snapshot/create":
		if !v.paused {
			return nil, refusal("Create snapshot error: Cannot save the microVM state: Operation not allowed: save/restore unavailable while running")
		}
		return nil, nil
	case "PUT /snapshot/load":
		return nil, v.load(text(values["snapshot_path"]))
	}
	if strings.HasPrefix(key, "PUT ") {
		v.put(path, values)
	}
	return nil, nil
}

func (v *VMM) put(path string, values map[string]json.RawMessage) {
	if v.set[path] == nil {
		v.paths = append(v.paths, path)
	}
	v.set[path] = values
}

func text(raw json.RawMessage) string {
	var s string
	json.Unmarshal(raw, &s)
	return s
}

func (v *VMM) state() string {
	switch {
	case !v.booted:
		return "Not started"
	case v.paused:
		return "Paused"
	}
	return "Running"
}

func (v *VMM) action(what string) error {
	switch {
	case what == "InstanceStart" && v.booted:
		return refusal(tooLate)
	case what == "InstanceStart" && v.set["/boot-source"] == nil:
		return refusal("Start microvm error: Cannot start microvm without kernel configuration.")
	case what == "InstanceStart":
		if err := v.boot(); err != nil {
			return refusal("Start microvm error: " + err.Error())
		}
	case !v.booted:
		return refusal(tooEarly)
	case what == "SendCtrlAltDel" && v.CtrlAltDel != nil:
		v.CtrlAltDel()
	}
	return nil
}

func (v *VMM) boot() error {
	if v.Boot != nil {
		if err := v.Boot(); err != nil {
			return err
		}
	}
	v.booted = true
	return nil
}

func (v *VMM) balloon(key string) (any, error) {
	balloon := v.set["/balloon"]
	switch {
	case balloon == nil:
		return nil, refusal(noBalloon)
	case key == "GET /balloon":
		return balloon, nil
	case key == "GET /balloon/statistics":
		return map[string]int{"target_pages": 0, "actual_pages": 0, "target_mib": 0, "actual_mib": 0}, nil
	case key == "PATCH /balloon": // the guest has no driver
		return nil, refusal("Balloon config error: Error creating the balloon device: Device not activated yet.")
	}
	return nil, nil
}

func (v *VMM) mmdsConfig(values map[string]json.RawMessage) error {
	var interfaces []string
	json.Unmarshal(values["network_interfaces"], &interfaces)
	for _, id := range interfaces {
		if v.set["/network-interfaces/"+id] == nil {
			return refusal("MMMDS config error: The list of network interface IDs provided contains at least one ID that does not correspond to any existing network interface.")
		}
	}
	v.put("/mmds/config", values)
	return nil
}

// load ends the VMM, as any load that goes wrong does: it has no snapshots.
func (v *VMM) load(path string) error {
	if v.taint {
		return refusal(tainted)
	}
	v.dead = true
	_, err := os.Open(path)
	reason := "No such file or directory (os error 2)"
	if err == nil {
		reason = "the fake has no snapshots"
	}
	return refusal("Load snapshot error: Failed to restore from snapshot: Failed to get snapshot state from file: Failed to open snapshot file: " + reason)
}

// machineConfig returns what is set over the defaults.
func (v *VMM) machineConfig() map[string]any {
	m := map[string]any{"vcpu_count": 1, "mem_size_mib": 128, "smt": false, "track_dirty_pages": false, "huge_pages": "None"}
	for key, value := range v.set["/machine-config"] {
		m[key] = value
	}
	return m
}

// config returns the whole configuration, as GET /vm/config does.
func (v *VMM) config() map[string]any {
	c := map[string]any{"machine-config": v.machineConfig(), "drives": v.all("/drives/", map[string]any{"cache_type": "Unsafe", "io_engine": "Sync"}), "network-interfaces": v.all("/network-interfaces/", nil)}
	have, _ := v.Release.fields("FullVmConfiguration")
	for _, section := range have {
		if _, ok := c[section]; ok {
			continue
		}
		c[section] = nil
		if set := v.set["/"+section]; set != nil {
			c[section] = set
		}
	}
	if set := v.set["/mmds/config"]; set != nil {
		c["mmds-config"] = set
	}
	if v.set["/boot-source"] == nil {
		c["boot-source"] = map[string]string{"kernel_image_path": ""}
	}
	return c
}

// all returns the resources below a path over defaults.
func (v *VMM) all(prefix string, defaults map[string]any) []any {
	list := []any{}
	for _, path := range v.paths {
		if !strings.HasPrefix(path, prefix) {
			continue
		}
		one := maps.Clone(defaults)
		if one == nil {
			one = map[string]any{}
		}
		for key, value := range v.set[path] {
			one[key] = value
		}
		list = append(list, one)
	}
	return list
}
