
# Completes names that the fleet server or the agent knows; without an answer, what is known without them.
_cotter_names() {
    _cotter "$@"
    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]} kind= name i
    local -a words=() names=()
    for ((i = 1; i < COMP_CWORD; i++)); do
        [[ ${COMP_WORDS[i]} == -* ]] || words+=("${COMP_WORDS[i]}")
    done
    [[ $cur == -* ]] && return 0
    case $prev in
    --fleet) kind=fleets ;;
    --device) kind=devices ;;
    -*) return 0 ;;
    *)
        case "${words[*]}" in
        logs | stop | start | restart | explain) kind=services ;;
        push | "release create") kind=fleets ;;
        "fleet provisioning-key "*)
            case "${words[*]:2}" in create | list | revoke) kind=fleets ;; esac
            ;;
        "fleet create" | "fleet list" | "fleet provisioning-key") ;;
        "fleet pin "*) kind=releases ;;
        "device move "*) kind=fleets ;;
        "device pin "*) kind=releases ;;
        "device barred" | "device allow" | "device list") ;;
        "env rm"*) kind=variables ;;
        "release check" | "release list") ;;
        *)
            [ ${#words[@]} = 2 ] || return 0
            case ${words[0]} in fleet | device | release) kind=${words[0]}s ;; esac
            ;;
        esac
        ;;
    esac
    [ -n "$kind" ] || return 0
    mapfile -t names < <("$1" names "$kind" 2>/dev/null)
    [ ${#names[@]} -gt 0 ] || return 0
    COMPREPLY=()
    for name in "${names[@]}"; do
        [[ $name != "$cur"* ]] || COMPREPLY+=("$(printf %q "$name")")
    done
}
complete -F _cotter_names -o nosort -o bashdefault -o default cotter 2>/dev/null ||
    complete -F _cotter_names -o bashdefault -o default cotter
