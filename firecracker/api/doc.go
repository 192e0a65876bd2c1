// Package api is a typed client of Firecracker's API, which each VMM serves on a unix socket: all of it, from 1.7 to 1.16.
//
// There are only five kinds of types. A [Client] talks to one VMM; it has a method for each request. The resources, such as [MachineConfig], are plain data
// with Firecracker's JSON names. A [ConfigFile] is what --config-file reads. A [Fault] is what a VMM answers to a request that it refuses. A [Version] knows what
// it lacks ([Check], [Version.Supports]) and what it must not be used for ([Version.Known]).
//
// # Caveats
//
// A VMM refuses a whole request for one unknown field, and ignores unknown sections of a configuration file silently: call [Check] first.
//
// A field that is optional is left out when it is zero. Where false or zero means something else than nothing, the field is a pointer.
//
// Source of names, units and ranges: src/firecracker/swagger/firecracker.yaml of Firecracker's repository at the tags of its releases. The tag since of a field, and Since
// of the tables, name the first release that has it; where it was brought to older lines too there are several.
package api
