# SPDX-License-Identifier: GPL-2.0
#
# Reads lines "export NAME" and then "bpftool btf dump format raw" of the kernel
# and of vhost.ko, and prints the prototypes of the exported functions.

$1 == "export" { exported[$2] = 1; next }

/^\[/ {
	id = substr($1, 2, length($1) - 2)
	kind[id] = $2
	match($0, /'[^']*'/)
	name[id] = substr($0, RSTART + 1, RLENGTH - 2)
	args[id] = 0
	match($0, /type_id=[0-9]+/)
	ref[id] = substr($0, RSTART + 8, RLENGTH - 8)
	if ($2 == "FUNC" && name[id] in exported)
		functions[++count] = id
	next
}

# The parameters of a FUNC_PROTO. Members of structures look alike and do no harm.
/^\t'.*type_id=/ && kind[id] == "FUNC_PROTO" {
	n = ++args[id]
	arg_name[id, n] = $1
	gsub(/'|\(anon\)/, "", arg_name[id, n])
	match($0, /type_id=[0-9]+/)
	arg[id, n] = substr($0, RSTART + 8, RLENGTH - 8)
}

# The declaration of "what" with this type; "what" grows outwards, as C has it.
function declare(type, what,    k) {
	k = kind[type]
	if (type == 0)
		return "void " what
	if (k == "PTR") {
		if (kind[ref[type]] == "FUNC_PROTO")
			return declare(ref[type], "(*" what ")")
		return declare(ref[type], "*" what)
	}
	if (k == "CONST" || k == "VOLATILE")
		return qualify(type, tolower(k), what)
	if (k == "TYPE_TAG" || k == "RESTRICT")
		return declare(ref[type], what)
	if (k == "FUNC_PROTO")
		return declare(ref[type], what "(" parameters(type) ")")
	if (k == "STRUCT" || k == "UNION" || k == "ENUM" || k == "ENUM64")
		return (k == "ENUM64" ? "enum" : tolower(k)) " " name[type] " " what
	if (k == "FWD")
		return "struct " name[type] " " what
	# INT, TYPEDEF, FLOAT
	return name[type] " " what
}

function qualify(type, word, what) {
	# "const" of a pointer stands right of the star, of anything else left.
	if (kind[ref[type]] == "PTR")
		return declare(ref[type], word " " what)
	return word " " declare(ref[type], what)
}

function parameters(type,    i, list) {
	if (!args[type])
		return "void"
	for (i = 1; i <= args[type]; i++)
		list = list (i > 1 ? ", " : "") declare(arg[type, i], arg_name[type, i])
	return list
}

END {
	for (i = 1; i <= count; i++) {
		f = functions[i]
		print declare(ref[f], name[f]) ";"
	}
}
