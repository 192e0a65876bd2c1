//go:build linux

package fakevmm

import (
	"fmt"
	"os"
)

// What a started machine looks at before it does what it is told (src/vmm/src/lib.rs@v1.12.1, and what it calls).

// unfound is what device managers say of a device that is not there.
const unfound = "Device manager error: Failed to find the device on the bus."

func (v *VMM) checkDrivePatch(r request) error {
	const format = "Drive config error: Unable to patch the block device: %s Please verify the request arguments."
	path := r.values["path_on_host"]
	switch {
	case v.set[r.path] == nil:
		return refusal(fmt.Sprintf(format, unfound))
	case path == nil && r.values["rate_limiter"] == nil: // that is for another kind of drive
		return refusal(fmt.Sprintf(format, "Device manager error: Running method expected different backend."))
	case path == nil:
		return nil
	}
	flags := os.O_RDWR
	if boolean(v.set[r.path]["is_read_only"]) {
		flags = os.O_RDONLY
	}
	if err := v.open(text(path), flags); err != nil {
		return refusal(fmt.Sprintf(format, "Device manager error: Virtio backend error: Error manipulating the backing file: "+err.Error()+" "+text(path)))
	}
	return nil
}

func (v *VMM) checkInterfacePatch(r request) error {
	if v.set[r.path] == nil {
		return refusal("Network config error: Unable to update the net device: " + unfound)
	}
	return nil
}

// balloon answers what is about one. The guest has no driver for it.
func (v *VMM) balloon(r request) (any, error) {
	balloon, prefix := v.set["/balloon"], "Balloon config error: "
	if v.booted {
		prefix += "Error creating the balloon device: "
	}
	interval := integerOf(balloon["stats_polling_interval_s"])
	switch asked := integerOf(r.values["stats_polling_interval_s"]); {
	case r.key == "PATCH /balloon" && integerOf(r.values["amount_mib"]) > v.memory():
		return nil, refusal(prefix + "Amount of pages requested cannot fit in `u32`.")
	case balloon == nil:
		return nil, refusal(prefix + "No balloon device found.")
	case r.key == "GET /balloon":
		return v.describe("Balloon", balloon), nil
	case r.key == "PATCH /balloon":
		return nil, refusal(prefix + "Device not activated yet.")
	case r.key == "PATCH /balloon/statistics" && interval != asked && (interval == 0 || asked == 0):
		return nil, refusal(prefix + "Statistics cannot be enabled/disabled after activation.")
	case r.key == "PATCH /balloon/statistics":
		balloon["stats_polling_interval_s"] = r.values["stats_polling_interval_s"]
		return nil, nil
	case interval == 0:
		return nil, refusal(prefix + "Received stats querry when stats are disabled.")
	}
	target := integerOf(balloon["amount_mib"])
	return map[string]int{"target_pages": target << 8, "actual_pages": 0, "target_mib": target, "actual_mib": 0}, nil
}
