//go:build linux

package fakevmm

import (
	"encoding/json"
	"strings"
)

// act does what was asked for.
func (v *VMM) act(r request) (any, error) {
	if v.set == nil {
		v.set = map[string]map[string]json.RawMessage{}
	}
	switch r.key {
	case "GET /":
		return map[string]string{"id": v.ID, "state": v.state(), "vmm_version": v.Release.Version, "app_name": "Firecracker"}, nil
	case "GET /version":
		return map[string]string{"firecracker_version": v.Release.Version}, nil
	case "GET /vm/config":
		return v.config(), nil
	case "GET /machine-config":
		return v.machineConfig(), nil
	case "GET /balloon", "GET /balloon/statistics", "PATCH /balloon", "PATCH /balloon/statistics":
		return v.balloon(r)
	case "GET /mmds":
		return v.metadata(), nil
	case "PUT /mmds", "PATCH /mmds":
		return nil, v.putMetadata(r)
	case "PUT /actions":
		return nil, v.action(text(r.values["action_type"]))
	case "PATCH /vm":
		v.paused = text(r.values["state"]) == "Paused"
		return nil, nil
	case "PUT /snapshot/create":
		return nil, v.snapshot(r)
	case "PUT /snapshot/load":
		return nil, v.load(text(r.values["snapshot_path"]))
	}
	if check := checks[r.key]; check != nil {
		if err := check(v, r); err != nil {
			return nil, err
		}
	}
	if strings.HasPrefix(r.key, "PUT ") || r.key == "PATCH /machine-config" {
		v.put(r.path, r.values)
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

func (v *VMM) balloon(r request) (any, error) {
	balloon := v.set["/balloon"]
	switch {
	case balloon == nil:
		return nil, refusal(noBalloon)
	case r.key == "GET /balloon":
		return balloon, nil
	case r.key == "GET /balloon/statistics":
		return map[string]int{"target_pages": 0, "actual_pages": 0, "target_mib": 0, "actual_mib": 0}, nil
	case r.key == "PATCH /balloon": // the guest has no driver
		return nil, refusal("Balloon config error: Error creating the balloon device: Device not activated yet.")
	}
	return nil, nil
}
