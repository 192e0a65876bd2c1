// Package api is a typed client of Firecracker's API, which each VMM serves on a unix socket.
//
// There are only four kinds of types. A [Client] talks to one VMM. The resources, such as [MachineConfig], are plain data with Firecracker's
// JSON names. A [ConfigFile] is what --config-file reads. A [Fault] is what a VMM answers to a request that it refuses.
//
// # Caveats
//
// A VMM refuses a whole request for one unknown field, and ignores unknown sections of a configuration file silently.
//
// Source of names, units and ranges: src/firecracker/swagger/firecracker.yaml of Firecracker's repository.
package api
