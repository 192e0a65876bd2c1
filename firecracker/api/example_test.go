package api_test

import (
	"context"
	"errors"
	"fmt"
	"log"

	"github.com/tangle-network/microvm-runtime/firecracker/api"
)

// What a version lacks is found before it is asked.
func ExampleCheck() {
	version, err := api.ParseVersion("Firecracker v1.12.1")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(api.Check(version, api.NetworkInterface{IfaceID: "eth0", HostDevName: "tap0", MTU: 1400}))
	fmt.Println(api.Check(version, api.NetworkInterface{IfaceID: "eth0", HostDevName: "tap0"}))
	fmt.Println(version.Supports(api.ClockRealtime))
	// Output:
	// NetworkInterface.mtu: Firecracker 1.12.1 does not have it (needs 1.16.0 or later)
	// <nil>
	// kvm-clock goes on at restore: Firecracker 1.12.1 does not have it (needs 1.14.4, or 1.15.1 or later)
}

// A VMM's refusal is a Fault, in its own words.
func ExampleClient() {
	ctx := context.Background()
	client := api.NewUnix("/run/machine/api.sock")
	defer client.Close()
	err := client.PutMachineConfig(ctx, api.MachineConfig{VCPUCount: 2, MemSizeMiB: 512})
	if fault := (*api.Fault)(nil); errors.As(err, &fault) {
		log.Fatalf("refused with status %d: %s", fault.Status, fault.Message)
	}
	if errors.Is(err, api.ErrGone) {
		log.Fatal("nobody listens")
	}
}
